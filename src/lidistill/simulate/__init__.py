"""A ray-casting LiDAR and the streets it drives through. Knows geometry and sensors, nothing of learning."""
