"""What a target will make of a network, said before there is one: fusion, rules, time."""
