package site

// Environment returns the environment of a test Posthorn on this machine, with
// its own folder and secret key.
func Environment(dir, database, broker, key string, more ...string) []string {
	return append([]string{
		"PATH=/usr/bin:/bin", "HOME=" + dir, "DATABASE_URL=" + database, "AMQP_URL=" + broker,
		"POSTHORN_SECRET_KEY=" + key, "POSTHORN_ALLOW_NETWORKS=127.0.0.0/8",
	}, more...)
}
