"""The Firestore adapter on the emulator."""
