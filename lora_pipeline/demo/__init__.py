"""The drawn world: pictures of drawn people with known truth, and the small base model trained on them."""
