"""What a training step means: masking, METRO, span corruption, prompted."""
