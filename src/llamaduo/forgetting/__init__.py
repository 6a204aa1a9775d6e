"""``llamaduo forget``: a person's rows are removed wherever they lie."""
