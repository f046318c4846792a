// The same in C++20, by lambdas and designated initialisers.
#include <socketserver/socketserver.h>

#include <cstdio>
#include <memory>
#include <string_view>

static const ss_handler upper = {
	.name = "upper",
	.handle = [](ss_request *req) -> int {
		char line[64];
		ssize_t n = ss_read_line(req, line, sizeof(line));
		if (n <= 0)
			return static_cast<int>(n);
		for (char *c = line; *c; c++)
			if (*c >= 'a' && *c <= 'z')
				*c = static_cast<char>(*c - 'a' + 'A');
		n = ss_write(req, line, static_cast<size_t>(n));
		return n < 0 ? static_cast<int>(n) : SS_AGAIN;
	},
};

struct server_free {
	void operator()(ss_server *server) const
	{
		ss_server_free(server);
	}
};

static bool in_memory()
{
	constexpr std::string_view in = "hello\nworld\n";
	char out[64];
	ssize_t n = ss_memory_exchange(&upper, in.data(), in.size(), out,
				       sizeof(out));
	return n == 12 && std::string_view(out, 12) == "HELLO\nWORLD\n";
}

static bool on_a_socket()
{
	const ss_config config = {
		.addresses = { "127.0.0.1:0" },
		SS_THREADING_TCP_SERVER,
		.handler = &upper,
	};
	ss_server *made;
	ss_diag why;
	if (ss_server_new(&made, &config, &why) < 0) {
		std::fprintf(stderr, "on a socket: %s\n", why.text);
		return false;
	}
	std::unique_ptr<ss_server, server_free> server(made);
	ss_address address;
	return ss_server_address(server.get(), 0, &address) >= 0 &&
	       ss_address_port(&address) > 0 &&
	       ss_server_close(server.get()) == 0;
}

int main()
{
	if (std::string_view(ss_version()) != SS_VERSION || !in_memory() ||
	    !on_a_socket())
		return 1;
	std::puts("ok " SS_VERSION);
	return 0;
}
