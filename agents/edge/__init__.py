"""What runs on a device that takes part in federated rounds: no Kafka, Java or Flink."""
