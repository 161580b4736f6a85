"""What a meter, an event and an aggregate row are."""
