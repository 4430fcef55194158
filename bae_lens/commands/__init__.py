"""What `bae-lens` can do, a file a command: its options, and a thin function that calls the package."""
