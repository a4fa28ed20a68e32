"""For tests that send signals to a child: `nohup make test &` makes children ignore them."""

HEARING = ("env", "--default-signal=INT,HUP,TERM")
"""Goes before a command (coreutils), which then hears these signals whatever it inherits."""
