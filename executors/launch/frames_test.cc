#include "executors/launch/frames.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <thread>

#include "common/files.h"
#include "flowmesh/v1/rank.pb.h"

namespace flowmesh::executor {
namespace {

using ::testing::HasSubstr;

v1::FromRank LogLine(const std::string& text) {
  v1::FromRank message;
  message.mutable_log_line()->set_text(text);
  return message;
}

struct SocketPair {
  SocketPair() {
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    a = UniqueFd(fds[0]);
    b = UniqueFd(fds[1]);
  }
  UniqueFd a, b;
};

TEST(Frames, LengthIsLittleEndian) {
  const std::string frame = EncodeFrame(LogLine(std::string(300, 'x'))).value();
  const size_t body = frame.size() - kFrameHeaderBytes;
  EXPECT_GT(body, 256u);
  EXPECT_EQ(static_cast<unsigned char>(frame[0]), body % 256);
  EXPECT_EQ(static_cast<unsigned char>(frame[1]), body / 256);
  EXPECT_EQ(frame[2], 0);
  EXPECT_EQ(frame[3], 0);
}

TEST(FrameDecoder, FramesComeOutWholeHoweverTheBytesArrive) {
  std::string stream;
  for (int i = 0; i < 50; ++i) stream += EncodeFrame(LogLine(std::string(i * 7, 'a'))).value();
  for (const size_t step : {1, 3, 4, 5, 64, 100000}) {
    FrameDecoder decoder;
    int seen = 0;
    for (size_t at = 0; at < stream.size(); at += step) {
      decoder.Feed(std::string_view(stream).substr(at, step));
      while (true) {
        const auto bytes = decoder.Next();
        ASSERT_TRUE(bytes.ok());
        if (!*bytes) break;
        v1::FromRank message;
        ASSERT_TRUE(message.ParseFromString(**bytes));
        EXPECT_EQ(message.log_line().text().size(), static_cast<size_t>(seen) * 7);
        ++seen;
      }
    }
    EXPECT_EQ(seen, 50) << "in steps of " << step;
    EXPECT_TRUE(decoder.AtBoundary());
  }
}

TEST(FrameDecoder, AnEmptyMessageIsAFrame) {
  FrameDecoder decoder;
  decoder.Feed(std::string(4, '\0'));
  const auto bytes = decoder.Next();
  ASSERT_TRUE(bytes.ok());
  ASSERT_TRUE(bytes->has_value());
  EXPECT_EQ(**bytes, "");
}

TEST(FrameDecoder, AnAnnouncedLengthOverTheLimitIsRefusedBeforeItsBytes) {
  FrameDecoder fresh;
  fresh.Feed(std::string_view("\x01\x00\x00\x10", 4));  // 256 MiB + 1
  EXPECT_TRUE(absl::IsResourceExhausted(fresh.Next().status()));
  FrameDecoder at_limit;
  at_limit.Feed(std::string_view("\x00\x00\x00\x10", 4));  // 256 MiB
  const auto waiting = at_limit.Next();
  ASSERT_TRUE(waiting.ok());
  EXPECT_FALSE(waiting->has_value());
  EXPECT_FALSE(at_limit.AtBoundary());
}

TEST(Frames, TravelOverASocketInBothSizes) {
  SocketPair sockets;
  const std::string large(5 << 20, 'y');  // far more than a socket's buffer
  std::thread writer([&] {
    EXPECT_TRUE(WriteFrame(sockets.a.get(), LogLine("small")).ok());
    EXPECT_TRUE(WriteFrame(sockets.a.get(), LogLine(large)).ok());
    sockets.a.Reset();
  });
  v1::FromRank message;
  ASSERT_TRUE(ReadFrame(sockets.b.get(), &message).ok());
  EXPECT_EQ(message.log_line().text(), "small");
  ASSERT_TRUE(ReadFrame(sockets.b.get(), &message).ok());
  EXPECT_EQ(message.log_line().text(), large);
  EXPECT_TRUE(absl::IsNotFound(ReadFrame(sockets.b.get(), &message)));
  writer.join();
}

TEST(Frames, APeerThatEndsWithinAFrameIsAnError) {
  const std::string frame = EncodeFrame(LogLine("cut short")).value();
  for (size_t sent = 1; sent < frame.size(); ++sent) {
    SocketPair sockets;
    ASSERT_EQ(::write(sockets.a.get(), frame.data(), sent), static_cast<ssize_t>(sent));
    sockets.a.Reset();
    v1::FromRank message;
    const absl::Status status = ReadFrame(sockets.b.get(), &message);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << sent << ": " << status;
  }
}

TEST(Frames, BytesThatAreNoMessageAreAnError) {
  SocketPair sockets;
  ASSERT_EQ(::write(sockets.a.get(), "\x02\x00\x00\x00\xff\xff", 6), 6);
  v1::FromRank message;
  const absl::Status status = ReadFrame(sockets.b.get(), &message);
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("is no flowmesh.v1.FromRank"));
}

TEST(Frames, ALengthOverTheLimitIsRefusedByTheBlockingReader) {
  SocketPair sockets;
  ASSERT_EQ(::write(sockets.a.get(), "\xff\xff\xff\xff", 4), 4);
  v1::FromRank message;
  EXPECT_TRUE(absl::IsResourceExhausted(ReadFrame(sockets.b.get(), &message)));
}

TEST(Frames, WritingToAPeerThatIsGoneIsAnErrorAndNoSignal) {
  SocketPair sockets;
  sockets.b.Reset();
  EXPECT_TRUE(absl::IsUnavailable(WriteFrame(sockets.a.get(), LogLine("x"))));
}

TEST(Frames, AMessageOverTheLimitIsNotSent) {
  SocketPair sockets;
  const absl::Status status =
      WriteFrame(sockets.a.get(), LogLine(std::string(kMaxFrameBytes, 'z')));
  EXPECT_TRUE(absl::IsResourceExhausted(status));
  sockets.a.Reset();
  char byte;
  EXPECT_EQ(::read(sockets.b.get(), &byte, 1), 0);  // nothing came before the end
}

}  // namespace
}  // namespace flowmesh::executor
