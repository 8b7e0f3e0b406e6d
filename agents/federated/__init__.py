"""The Flower app of federated rounds: server_app, client_app and task; torch-free on both sides."""
