"""vLLM: local servers that are started, watched and stopped here, and asked in whole exams (https://docs.vllm.ai)."""
