module posthorn/events

go 1.26.0
