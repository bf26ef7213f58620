"""Events from a stream: reads Kafka, writes through the code of `POST /events`; exposures to a topic."""
