package bench

import "time"

// CPU is the CPU time of each process.
type CPU map[string]time.Duration

// since is what was used after an earlier look.
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

// Own is what belongs to the system, without what only measures.
func (c CPU) Own() time.Duration { return c[posthorn] + c[postgresP] + c[rabbitmq] }

// Sum is that of all processes.
func (c CPU) Sum() (sum time.Duration) {
	for _, t := range c {
		sum += t
	}
	return sum
}
