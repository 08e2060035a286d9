"""From descriptors to matches (`dual_softmax`), and from matches to whether a pair is one (`acceptance`)."""
