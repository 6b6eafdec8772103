"""How fast it is: each bar measured against a floor that is taken in the same run."""
