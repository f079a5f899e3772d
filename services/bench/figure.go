package bench

// Figure is one number that a run of a scenario measured.
type Figure struct {
	Scenario string
	Name     string
	Unit     string
	Value    float64
	// Raw is what the same run measured of what lies below, named Limit; 0
	// where there is nothing to compare with.
	Raw   float64
	Limit string
	Goal  Goal
}

// Goal is what a figure should be. The zero value asks for nothing.
type Goal struct {
	// AtLeast asks for as much, or for Share of the raw limit, whichever is
	// less. One of both may be 0.
	AtLeast, Share float64
	// Below asks for less.
	Below float64
	// Times asks for at most so many times the raw figure.
	Times float64
}

// CPUUse is what a run used.
type CPUUse struct {
	Scenario string
	CPU      CPU
	Events   int // delivered
	Peak     int64
}
