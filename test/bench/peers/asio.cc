// Echo by Boost.Asio, as its examples have it: a session for each client, which
// reads what there is, writes all of it, and keeps itself alive meanwhile.
#include "peer.h"

#include <array>
#include <memory>
#include <utility>

#include <boost/asio.hpp>

namespace asio = boost::asio;
using boost::system::error_code;

template <typename Socket>
class Session : public std::enable_shared_from_this<Session<Socket>>
{
      public:
	explicit Session(Socket socket) : socket_(std::move(socket))
	{
	}

	void read()
	{
		auto self = this->shared_from_this();
		socket_.async_read_some(
			asio::buffer(data_),
			[this, self](error_code error, std::size_t n) {
				if (!error)
					write(n);
			});
	}

      private:
	void write(std::size_t n)
	{
		auto self = this->shared_from_this();
		asio::async_write(socket_, asio::buffer(data_.data(), n),
				  [this, self](error_code error, std::size_t) {
					  if (!error)
						  read();
				  });
	}

	Socket socket_;
	std::array<char, BENCH_BUFFER> data_;
};

template <typename Protocol> class Server
{
      public:
	Server(asio::io_context &context, Protocol protocol, int fd)
	    : acceptor_(context, protocol, fd)
	{
		accept();
	}

      private:
	using Socket = typename Protocol::socket;

	void accept()
	{
		acceptor_.async_accept([this](error_code error, Socket socket) {
			if (!error)
				std::make_shared<Session<Socket>>(
					std::move(socket))
					->read();
			accept();
		});
	}

	typename Protocol::acceptor acceptor_;
};

class Packets
{
      public:
	Packets(asio::io_context &context, int fd)
	    : socket_(context, asio::ip::udp::v4(), fd)
	{
		receive();
	}

      private:
	void receive()
	{
		socket_.async_receive_from(
			asio::buffer(data_), from_,
			[this](error_code error, std::size_t n) {
				if (error)
					receive();
				else
					send(n);
			});
	}

	void send(std::size_t n)
	{
		socket_.async_send_to(
			asio::buffer(data_.data(), n), from_,
			[this](error_code, std::size_t) { receive(); });
	}

	asio::ip::udp::socket socket_;
	asio::ip::udp::endpoint from_;
	std::array<char, 65536> data_;
};

int main(int argc, char **argv)
{
	const int fd = peer_listen(argc, argv, 0);
	asio::io_context context(1);

	if (strncmp(argv[1], "udp:", 4) == 0) {
		Packets packets(context, fd);
		context.run();
	} else if (strncmp(argv[1], "unix:", 5) == 0) {
		Server<asio::local::stream_protocol> server(
			context, asio::local::stream_protocol(), fd);
		context.run();
	} else {
		Server<asio::ip::tcp> server(context, asio::ip::tcp::v4(), fd);
		context.run();
	}
}
