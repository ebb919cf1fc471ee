"""The methods: what is done with a classroom. `m3` is the page to read first."""
