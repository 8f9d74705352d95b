"""Speed: what is measured, beside what, and against which bound."""
