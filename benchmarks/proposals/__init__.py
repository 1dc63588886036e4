"""How many proposals two workers judge a minute, by this code and by older."""
