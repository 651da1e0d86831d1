// A small server on centrifuge, the library of Centrifugo, for comparison: clients bring a JSON Web
// Token in the connect frame and are put into the rooms that it names; a publication is a line
// "room json" on a second port. Memory engine, one node, JSON.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/centrifugal/centrifuge"
	"github.com/golang-jwt/jwt"
)

// Long enough for anything that the bench publishes.
const maxLine = 64 * 1024

type claims struct {
	jwt.StandardClaims
	Channels []string `json:"channels"`
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "where clients connect")
	publish := flag.String("publish", "127.0.0.1:0", "where publications come from")
	ping := flag.Duration("ping", 25*time.Second, "how often clients are pinged")
	readBuffer := flag.Int("read-buffer", 1024, "bytes for each connection")
	pool := flag.Bool("write-pool", true, "share write buffers")
	flag.Parse()
	secret := []byte(os.Getenv("BELLHOP_BENCH_SECRET"))
	if len(secret) < 32 {
		log.Fatal("BELLHOP_BENCH_SECRET is too short")
	}
	node, err := newNode(secret)
	if err != nil {
		log.Fatal(err)
	}
	handler := centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{
		PingInterval:       *ping,
		ReadBufferSize:     *readBuffer,
		UseWriteBufferPool: *pool,
		WriteTimeout:       10 * time.Second,
	})
	mux := http.NewServeMux()
	mux.Handle("/connection/websocket", handler)
	publications, err := net.Listen("tcp", *publish)
	if err != nil {
		log.Fatal(err)
	}
	go acceptPublishers(node, publications)
	go func() { log.Fatal(http.ListenAndServe(*listen, mux)) }()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	<-stop
}

func newNode(secret []byte) (*centrifuge.Node, error) {
	node, err := centrifuge.New(centrifuge.DefaultConfig)
	if err != nil {
		return nil, err
	}
	node.OnConnecting(func(_ context.Context, event centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		claims, err := verify(event.Token, secret)
		if err != nil {
			return centrifuge.ConnectReply{}, centrifuge.DisconnectInvalidToken
		}
		rooms := make(map[string]centrifuge.SubscribeOptions, len(claims.Channels))
		for _, room := range claims.Channels {
			rooms[room] = centrifuge.SubscribeOptions{}
		}
		return centrifuge.ConnectReply{
			Credentials:       &centrifuge.Credentials{UserID: claims.Subject, ExpireAt: claims.ExpiresAt},
			Subscriptions:     rooms,
			ClientSideRefresh: true,
		}, nil
	})
	return node, node.Run()
}

func verify(token string, secret []byte) (*claims, error) {
	parser := jwt.Parser{ValidMethods: []string{"HS256"}}
	var found claims
	_, err := parser.ParseWithClaims(token, &found, func(*jwt.Token) (interface{}, error) {
		return secret, nil
	})
	if err == nil && found.Subject == "" {
		err = errors.New("no subject")
	}
	return &found, err
}

func acceptPublishers(node *centrifuge.Node, listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go takePublications(node, conn)
	}
}

func takePublications(node *centrifuge.Node, conn net.Conn) {
	defer conn.Close()
	lines := bufio.NewScanner(conn)
	lines.Buffer(make([]byte, maxLine), maxLine)
	for lines.Scan() {
		room, data, found := bytes.Cut(lines.Bytes(), []byte(" "))
		if !found || !json.Valid(data) {
			log.Fatal("a publication is: room json")
		}
		// The library keeps what it is given; the scanner uses its buffer again.
		if _, err := node.Publish(string(room), append([]byte(nil), data...)); err != nil {
			log.Fatal(err)
		}
	}
}
