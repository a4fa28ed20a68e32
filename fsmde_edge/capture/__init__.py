"""Where pictures come from: recordings, video files, synthetic streets, and later live cameras."""
