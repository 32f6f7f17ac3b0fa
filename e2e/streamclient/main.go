// Command streamclient drives a streaming server with client-go, as kubectl does: its standard streams are those of the
// remote process, and its exit code is the remote one (or 125 with an error on stderr).
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
)

const failed = 125

type options struct {
	transport string
	protocols string
	url       string
	stdin     bool
	stdout    bool
	stderr    bool
	tty       bool
	sizes     string
	port      uint
}

func main() {
	if len(os.Args) < 2 {
		end(errors.New("command: stream, many or forward"))
	}
	var o options
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	flags.StringVar(&o.transport, "transport", "spdy", "spdy or websocket")
	flags.StringVar(&o.protocols, "protocols", "", "subprotocols with commas, else client-go's own")
	flags.StringVar(&o.url, "url", "", "what the CRI answered with")
	flags.BoolVar(&o.stdin, "stdin", false, "send stdin")
	flags.BoolVar(&o.stdout, "stdout", true, "receive stdout")
	flags.BoolVar(&o.stderr, "stderr", false, "receive stderr")
	flags.BoolVar(&o.tty, "tty", false, "the remote side has a terminal")
	flags.StringVar(&o.sizes, "sizes", "", "the terminal's sizes, such as 80x24,100x50")
	flags.UintVar(&o.port, "port", 0, "the remote port")
	_ = flags.Parse(os.Args[2:])
	switch os.Args[1] {
	case "stream":
		end(stream(o))
	case "many":
		end(many(o))
	case "forward":
		end(forward(o))
	default:
		end(fmt.Errorf("unknown command %q", os.Args[1]))
	}
}

// end leaves with the remote exit code.
func end(err error) {
	if err == nil {
		os.Exit(0)
	}
	var exit exec.CodeExitError
	if errors.As(err, &exit) {
		os.Exit(exit.Code)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(failed)
}

func executor(o options, target string) (remotecommand.Executor, error) {
	parsed, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	config := &rest.Config{Host: parsed.Host}
	var protocols []string
	if o.protocols != "" {
		protocols = strings.Split(o.protocols, ",")
	}
	switch {
	case o.transport == "spdy" && protocols == nil:
		return remotecommand.NewSPDYExecutor(config, http.MethodPost, parsed)
	case o.transport == "spdy":
		transport, upgrader, err := spdy.RoundTripperFor(config)
		if err != nil {
			return nil, err
		}
		return remotecommand.NewSPDYExecutorForProtocols(transport, upgrader, http.MethodPost, parsed, protocols...)
	case o.transport == "websocket" && protocols == nil:
		return remotecommand.NewWebSocketExecutor(config, http.MethodGet, target)
	case o.transport == "websocket":
		return remotecommand.NewWebSocketExecutorForProtocols(config, http.MethodGet, target, protocols...)
	}
	return nil, fmt.Errorf("unknown transport %q", o.transport)
}

func stream(o options) error {
	executor, err := executor(o, o.url)
	if err != nil {
		return err
	}
	options := remotecommand.StreamOptions{Tty: o.tty}
	if o.stdin {
		options.Stdin = os.Stdin
	}
	if o.stdout {
		options.Stdout = os.Stdout
	}
	if o.stderr {
		options.Stderr = os.Stderr
	}
	if o.sizes != "" {
		if options.TerminalSizeQueue, err = parseSizes(o.sizes); err != nil {
			return err
		}
	}
	return executor.StreamWithContext(context.Background(), options)
}

// sizes are given out one after the other; then there is no further one.
type sizes []remotecommand.TerminalSize

func parseSizes(text string) (*sizes, error) {
	var parsed sizes
	for _, word := range strings.Split(text, ",") {
		width, height, _ := strings.Cut(word, "x")
		w, errWidth := strconv.ParseUint(width, 10, 16)
		h, errHeight := strconv.ParseUint(height, 10, 16)
		if err := errors.Join(errWidth, errHeight); err != nil {
			return nil, err
		}
		parsed = append(parsed, remotecommand.TerminalSize{Width: uint16(w), Height: uint16(h)})
	}
	return &parsed, nil
}

func (s *sizes) Next() *remotecommand.TerminalSize {
	if len(*s) == 0 {
		return nil
	}
	size := (*s)[0]
	*s = (*s)[1:]
	return &size
}

// many runs the sessions whose URLs come on stdin, all at once. Each sends bytes of its own and wants them back.
func many(o options) error {
	var urls []string
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		urls = append(urls, lines.Text())
	}
	results := make([]error, len(urls))
	var group sync.WaitGroup
	for i, target := range urls {
		group.Add(1)
		go func() {
			defer group.Done()
			results[i] = echo(o, target, i)
		}()
	}
	group.Wait()
	return errors.Join(results...)
}

func echo(o options, target string, number int) error {
	executor, err := executor(o, target)
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(strconv.Itoa(number)))
	sent := bytes.Repeat(sum[:], 1000)
	var received bytes.Buffer
	options := remotecommand.StreamOptions{Stdin: bytes.NewReader(sent), Stdout: &received}
	if err := executor.StreamWithContext(context.Background(), options); err != nil {
		return fmt.Errorf("session %d: %w", number, err)
	}
	if !bytes.Equal(sent, received.Bytes()) {
		return fmt.Errorf("session %d: sent %d bytes, received %d others", number, len(sent), received.Len())
	}
	return nil
}

// forward prints the local port, and forwards until its stdin ends.
func forward(o options) error {
	parsed, err := url.Parse(o.url)
	if err != nil {
		return err
	}
	config := &rest.Config{Host: parsed.Host}
	ports := []string{fmt.Sprintf("0:%d", o.port)}
	stop, ready := make(chan struct{}), make(chan struct{})
	var forwarder *portforward.PortForwarder
	if o.transport == "websocket" {
		dialer, err := portforward.NewSPDYOverWebsocketDialer(parsed, config)
		if err != nil {
			return err
		}
		forwarder, err = portforward.New(dialer, ports, stop, ready, io.Discard, os.Stderr)
		if err != nil {
			return err
		}
	} else {
		transport, upgrader, err := spdy.RoundTripperFor(config)
		if err != nil {
			return err
		}
		dialer := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, parsed)
		forwarder, err = portforward.New(dialer, ports, stop, ready, io.Discard, os.Stderr)
		if err != nil {
			return err
		}
	}
	go func() {
		<-ready
		forwarded, err := forwarder.GetPorts()
		if err != nil {
			end(err)
		}
		fmt.Println(forwarded[0].Local)
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(stop)
	}()
	return forwarder.ForwardPorts()
}
