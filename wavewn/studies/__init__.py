"""Experiments that back wavewn's choices, each a command that anyone can run again."""
