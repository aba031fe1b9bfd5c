"""Other systems' objectives, on the same networks."""
