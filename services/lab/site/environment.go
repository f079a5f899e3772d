package site

// Environment is what a Posthorn runs with that is tried on this machine, in a
// folder of its own and with its own key for secrets.
func Environment(dir, database, broker, key string, more ...string) []string {
	return append([]string{
		"PATH=/usr/bin:/bin", "HOME=" + dir, "DATABASE_URL=" + database, "AMQP_URL=" + broker,
		"POSTHORN_SECRET_KEY=" + key, "POSTHORN_ALLOW_NETWORKS=127.0.0.0/8",
	}, more...)
}
