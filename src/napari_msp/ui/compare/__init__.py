"""Compare's parts: from records to cells in the viewer's grid."""
