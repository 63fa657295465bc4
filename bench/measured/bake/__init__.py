"""A package like that of a baked project, whose services are started as those are."""
