"""Tree heads to outside witnesses, and their receipts back."""
