"""What a federated round computes, on devices and on the server; no network in here."""
