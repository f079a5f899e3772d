//go:build unix && !linux

package privateserver

import "syscall"

// Other systems have no /proc and no death signal: a server outlives a program
// that was killed, and the next start in its folder fails with the server's
// own message about the process that has it open.

func setDeathSignal(*syscall.SysProcAttr, syscall.Signal) {}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func worksIn(int, string) bool { return false }

func descendants(int) []int { return nil }

func namesakes(string, []string) []int { return nil }
