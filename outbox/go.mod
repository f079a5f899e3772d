module posthorn/outbox

go 1.26.0

require posthorn/events v0.0.0

replace posthorn/events => ../events
