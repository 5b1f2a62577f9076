"""What is decided and done for one container: policy, allocation, attachment, names, locks, watcher."""
