package site

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// ticksPerSecond is the unit of /proc/PID/stat: USER_HZ, which is 100 on every
// architecture that Go runs on.
const ticksPerSecond = 100

// CPUOf returns the CPU time of a process, of its running descendants, and of
// children that it has waited for.
func CPUOf(pid int) (time.Duration, error) {
	stats, err := readStats()
	if err != nil {
		return 0, err
	}
	root, ok := stats[pid]
	if !ok {
		return 0, fmt.Errorf("process %d is not there", pid)
	}
	total := root.cpu
	for p, s := range stats {
		if p != pid && below(stats, s.parent, pid) {
			total += s.cpu
		}
	}
	return total, nil
}

func below(stats map[int]stat, pid, root int) bool {
	for range 32 {
		if pid == root {
			return true
		}
		s, ok := stats[pid]
		if !ok || pid <= 1 {
			return false
		}
		pid = s.parent
	}
	return false
}

type stat struct {
	parent int
	cpu    time.Duration // with that of children that were waited for
}

func readStats() (map[int]stat, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	stats := make(map[int]stat, len(paths))
	for _, path := range paths {
		content, err := os.ReadFile(path) //nolint:gosec // of the kernel
		if err != nil {
			continue // it has ended since
		}
		pid, err := strconv.Atoi(strings.Split(path, "/")[2])
		if err != nil {
			return nil, fmt.Errorf("read process id: %w", err)
		}
		s, err := parseStat(content)
		if err != nil {
			return nil, err
		}
		stats[pid] = s
	}
	return stats, nil
}

var errStat = errors.New("stat of a process that cannot be read")

// parseStat parses a line of /proc/PID/stat. The name in it may contain anything.
func parseStat(content []byte) (stat, error) {
	fields := bytes.Fields(content[bytes.LastIndexByte(content, ')')+1:])
	if len(fields) < 15 {
		return stat{}, errStat
	}
	// Counted from the state, which is the third field in proc(5).
	number := func(i int) int64 {
		n, err := strconv.ParseInt(string(fields[i]), 10, 64)
		if err != nil {
			return 0
		}
		return n
	}
	ticks := number(11) + number(12) + number(13) + number(14)
	return stat{parent: int(number(1)), cpu: time.Duration(ticks) * time.Second / ticksPerSecond}, nil
}

// MemoryOf returns the current and the peak memory of a process, in bytes.
func MemoryOf(pid int) (now, peak int64, err error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, fmt.Errorf("read memory: %w", err)
	}
	for line := range strings.Lines(string(content)) {
		name, value, _ := strings.Cut(line, ":")
		kilobytes, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			continue // another line
		}
		switch name {
		case "VmRSS":
			now = kilobytes << 10
		case "VmHWM":
			peak = kilobytes << 10
		}
	}
	return now, peak, nil
}

// FilesOf returns how many file descriptors a process has open.
func FilesOf(pid int) (int, error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("count open files: %w", err)
	}
	return len(entries), nil
}
