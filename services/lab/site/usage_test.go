package site

import (
	"os"
	"testing"
	"time"
)

func TestStatIsReadWhateverTheNameOfTheProcess(t *testing.T) {
	t.Parallel()
	line := "42 (a) (b c) S 7 42 42 0 -1 4194560 100 0 0 0 150 50 25 75 20 0 1 0 100 1000 10 18446744073709551615\n"
	got, err := parseStat([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	if want := (stat{parent: 7, cpu: 3 * time.Second}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if _, err := parseStat([]byte("42 (a) S 7")); err == nil {
		t.Error("a line that is cut short is read")
	}
}

func TestThisProcessHasTimeMemoryAndFiles(t *testing.T) {
	t.Parallel()
	pid := os.Getpid()
	for begun := time.Now(); ; {
		cpu, err := CPUOf(pid)
		if err != nil {
			t.Fatal(err)
		}
		if cpu > 0 {
			break // measuring takes some
		}
		if time.Since(begun) > 10*time.Second {
			t.Fatal("no CPU time in ten seconds")
		}
	}
	now, peak, err := MemoryOf(pid)
	if err != nil || now <= 0 || peak < now {
		t.Errorf("memory %d of %d, %v", now, peak, err)
	}
	if n, err := FilesOf(pid); err != nil || n < 3 {
		t.Errorf("%d files, %v", n, err)
	}
	if _, err := CPUOf(1 << 30); err == nil {
		t.Error("a process that is not there has CPU time")
	}
}
