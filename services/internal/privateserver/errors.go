package privateserver

import "errors"

var (
	// ErrNotInstalled is returned by StartPostgres and StartRabbitMQ when the
	// server's programs are not on the machine.
	ErrNotInstalled = errors.New("not installed (scripts/install installs missing programs)")
	// ErrInUse is returned by StartPostgres and StartRabbitMQ when another
	// process runs the server of this folder. The error names its pid.
	ErrInUse = errors.New("folder is in use")

	// errPortTaken makes a start try again on other ports.
	errPortTaken = errors.New("a port was taken meanwhile")
	// errExited is the error of a start whose server exited.
	errExited = errors.New("exited before it was ready")
)
