"""One trial on one device: data, models, training, measuring."""
