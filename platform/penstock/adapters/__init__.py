"""Adapters: LoRA fine-tunes of catalog models, uploaded by organisations and served on the base's pool."""
