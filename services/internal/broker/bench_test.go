package broker_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"posthorn/services/internal/broker"
)

// BenchmarkPublishAll publishes batches of 500 messages of 300 bytes.
func BenchmarkPublishAll(b *testing.B) {
	for _, kind := range []string{broker.Classic, broker.Quorum} {
		b.Run(kind, func(b *testing.B) {
			s := newSite(b)
			s.cfg.QueueType = kind
			s.cfg.Logger = nil
			q := s.subscription(b, s.topology(b), "sub_1")
			p := s.publisher(b)
			batch := messages(q, 500)
			for i := range batch {
				batch[i].Body = make([]byte, 300)
			}
			fill(b, p, q, 1)
			b.ResetTimer()
			for range b.N {
				if _, err := p.PublishAll(b.Context(), batch); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*len(batch))/b.Elapsed().Seconds(), "msgs/s")
		})
	}
}

// BenchmarkPublishAllAlone publishes single messages, from 64 callers at once.
func BenchmarkPublishAllAlone(b *testing.B) {
	s := newSite(b)
	q := s.subscription(b, s.topology(b), "sub_1")
	p := s.publisher(b)
	batch := messages(q, 1)
	batch[0].Body = make([]byte, 300)
	fill(b, p, q, 1)
	b.SetParallelism(32)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := p.PublishAll(b.Context(), batch); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
}

// BenchmarkConsumers consumes what has been published before, with 256 messages in flight.
func BenchmarkConsumers(b *testing.B) {
	for _, kind := range []string{broker.Classic, broker.Quorum} {
		for _, queues := range []int{1, 20} {
			b.Run(fmt.Sprintf("%s/queues=%d", kind, queues), func(b *testing.B) {
				s := newSite(b)
				s.cfg.QueueType = kind
				s.cfg.Logger = nil
				topology, p, c := s.topology(b), s.publisher(b), s.consumers(b)
				var n atomic.Int64
				done := make(chan struct{})
				total := int64(b.N / queues * queues)
				for i := range queues {
					q := s.subscription(b, topology, fmt.Sprint("sub_", i))
					for left := b.N / queues; left > 0; left -= 1000 {
						batch := messages(q, min(left, 1000))
						for i := range batch {
							batch[i].Body = make([]byte, 300)
						}
						if _, err := p.PublishAll(b.Context(), batch); err != nil {
							b.Fatal(err)
						}
					}
					if err := c.Add(q, 256, func(context.Context, broker.Message) error {
						if n.Add(1) == total {
							close(done)
						}
						return nil
					}); err != nil {
						b.Fatal(err)
					}
				}
				if total == 0 {
					return
				}
				b.ResetTimer()
				run(b, c)
				<-done
				b.StopTimer()
				b.ReportMetric(float64(total)/b.Elapsed().Seconds(), "msgs/s")
			})
		}
	}
}
