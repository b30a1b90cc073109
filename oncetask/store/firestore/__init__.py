"""The Firestore adapter: the only place that imports google.cloud.firestore and grpc.

Importing it takes about a second, so nothing else imports it before a Firestore store is asked for.
"""

from oncetask.store.firestore.store import FirestoreStore

__all__ = ["FirestoreStore"]
