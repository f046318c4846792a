/*
 * libsocketserver: Python's socketserver, in C.  Everything in one header:
 *
 *	server.h	run servers
 *	handler.h	write handlers
 *	layer.h		extend servers
 *	layers.h	the layers that we ship
 *	run.h		the main of a daemon
 *	log.h		where logs go
 *	sim.h		try servers under every order of events
 *	record.h	record connections, and replay them
 */
#ifndef SOCKETSERVER_SOCKETSERVER_H
#define SOCKETSERVER_SOCKETSERVER_H

#include <socketserver/handler.h>
#include <socketserver/layer.h>
#include <socketserver/layers.h>
#include <socketserver/log.h>
#include <socketserver/record.h>
#include <socketserver/run.h>
#include <socketserver/server.h>
#include <socketserver/sim.h>

#endif
