"""Teachers: pictures in, disparity and features out; kept on disk so that an epoch never pays twice."""
