"""Scenarios, classrooms, agents and personas as YAML: read, checked, completed by presets, and explained."""
