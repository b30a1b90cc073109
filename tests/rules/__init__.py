"""What the security rules let users see of the tasks, asked of the emulator as a browser would ask."""
