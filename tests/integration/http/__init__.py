"""The HTTP edge: functions behind HTTP and WebSocket, on real servers where that matters."""
