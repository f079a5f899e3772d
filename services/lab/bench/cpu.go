package bench

import "time"

// CPU is the CPU time of each process.
type CPU map[string]time.Duration

// since is the CPU time used since an earlier measurement.
func (c CPU) since(earlier CPU) CPU {
	used := CPU{}
	for name, t := range c {
		used[name] = t - earlier[name]
	}
	return used
}

// The names of processes.
const (
	posthorn  = "Posthorn"
	postgresP = "Postgres"
	rabbitmq  = "RabbitMQ"
	receiver  = "receiver"
	generator = "generator"
)

// Own is the CPU time of the system itself, without generator and receiver.
func (c CPU) Own() time.Duration { return c[posthorn] + c[postgresP] + c[rabbitmq] }

// Sum is the CPU time of all processes.
func (c CPU) Sum() (sum time.Duration) {
	for _, t := range c {
		sum += t
	}
	return sum
}
