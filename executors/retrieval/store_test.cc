#include "executors/retrieval/store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/barrier.h"
#include "common/files.h"
#include "common/sqlite.h"
#include "executors/retrieval/filter.h"

namespace flowmesh::retrieval {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// Gives another vector of random numbers with each call.
std::function<std::vector<float>()> Drawing(int64_t width, uint32_t seed) {
  return
      [width, random = std::mt19937(seed), normal = std::normal_distribution<float>()]() mutable {
        std::vector<float> vector(static_cast<size_t>(width));
        for (float& x : vector) x = normal(random);
        return vector;
      };
}

class StoreTest : public testing::Test {
 protected:
  static constexpr int64_t kDimension = 3;

  std::filesystem::path path() const { return dir_ / "store.db"; }
  void Open(int64_t dimension = kDimension) {
    store_.reset();
    auto store = Store::Open(path(), "m", dimension);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }
  void Add(const std::string& source, const std::vector<Passage>& passages) {
    AddTo(*store_, source, passages);
  }
  static void AddTo(Store& store, const std::string& source, const std::vector<Passage>& passages) {
    const auto version = store.Begin({.name = source, .stamp = "s", .digest = "d"});
    ASSERT_TRUE(version.ok()) << version.status();
    ASSERT_TRUE(store.Append(*version, passages).ok());
    ASSERT_TRUE(store.Complete(*version, "s").ok());
  }
  // Three passages about animals and one about ships.
  void Fill() {
    Open();
    Add("animals",
        {{"The red fox sleeps", {{"year", 1990}, {"kind", "fox"}}, {2, 0, 0}},
         {"A dog's \"house\"", {{"year", 2001}, {"kind", "dog"}}, {0.6f, 0.8f, 0}},
         {"Dogs and foxes", {{"year", 2010.5}, {"kind", "dog"}, {"wild", true}}, {0, 3, 0}}});
    Add("ships", {{"A red ship", {{"kind", "ship"}}, {0, 0, 1}}});
  }
  std::vector<std::string> Texts(const StoreQuery& query) {
    const auto items = store_->Search(query);
    EXPECT_TRUE(items.ok()) << items.status();
    std::vector<std::string> texts;
    if (!items.ok()) return texts;
    for (const Json& item : *items) texts.push_back(item["payload"]["text"]);
    return texts;
  }

  TempDir dir_;
  std::unique_ptr<Store> store_;
};

TEST_F(StoreTest, TheNearestByCosineComeFirst) {
  Fill();
  const auto items = store_->Search({.vector = {10, 0, 0}, .limit = 2});
  ASSERT_TRUE(items.ok()) << items.status();
  ASSERT_EQ(items->size(), 2u);
  EXPECT_EQ((*items)[0]["payload"],
            (Json{{"text", "The red fox sleeps"}, {"year", 1990}, {"kind", "fox"}}));
  EXPECT_NEAR((*items)[0]["score"].get<double>(), 1.0, 1e-6);
  EXPECT_NEAR((*items)[1]["score"].get<double>(), 0.6, 1e-6);
  EXPECT_THAT(Texts({.vector = {1, 0, 0}, .threshold = 0.5}),
              ElementsAre("The red fox sleeps", "A dog's \"house\""));
}

TEST_F(StoreTest, FiltersOnMetadata) {
  Fill();
  const auto texts = [&](const Json& filter) {
    EXPECT_TRUE(CheckFilter(filter, "f").ok()) << CheckFilter(filter, "f");
    return Texts({.vector = {1, 0, 0}, .filter = filter});
  };
  EXPECT_THAT(texts({{"kind", "dog"}}), ElementsAre("A dog's \"house\"", "Dogs and foxes"));
  EXPECT_THAT(texts({{"kind", {"fox", "ship"}}}), ElementsAre("The red fox sleeps", "A red ship"));
  EXPECT_THAT(texts({{"year", {{"gt", 1990}, {"lte", 2010.5}}}}),
              ElementsAre("A dog's \"house\"", "Dogs and foxes"));
  EXPECT_THAT(texts({{"year", 1990}, {"kind", "fox"}}), ElementsAre("The red fox sleeps"));
  EXPECT_THAT(texts({{"wild", true}}), ElementsAre("Dogs and foxes"));
  EXPECT_THAT(texts({{"kind", "cat"}}), IsEmpty());
  EXPECT_THAT(texts({{"kind') OR 1 OR ('", "dog"}}), IsEmpty());
}

TEST_F(StoreTest, WrongFiltersAreNamed) {
  const auto error = [](const Json& filter) { return Message(CheckFilter(filter, "f")); };
  EXPECT_EQ(error("x"), "f: expected a map, got \"x\"");
  EXPECT_THAT(error({{"a", Json::array()}}), HasSubstr("f.a: expected a text, number or boolean"));
  EXPECT_EQ(error({{"a", {{"near", 1}}}}), "f.a.near: expected gte, gt, lte or lt");
  EXPECT_EQ(error({{"a", {{"gt", true}}}}), "f.a.gt: expected a number or a text, got true");
}

TEST_F(StoreTest, WordsAndVectorsAreFusedByRank) {
  Fill();
  // By vector the ship is last; by words it is the better of the two red ones.
  const StoreQuery query = {
      .vector = {1, 0, 0}, .text = "ship, \"red\" OR (", .limit = 4, .hybrid = true};
  const auto items = store_->Search(query);
  ASSERT_TRUE(items.ok()) << items.status();
  std::vector<std::string> texts;
  for (const Json& item : *items) texts.push_back(item["payload"]["text"]);
  EXPECT_THAT(texts, ElementsAre("The red fox sleeps", "A red ship", "A dog's \"house\"",
                                 "Dogs and foxes"));
  EXPECT_NEAR((*items)[0]["score"].get<double>(), 1.0 / 61 + 1.0 / 62, 1e-9);
  EXPECT_NEAR((*items)[1]["score"].get<double>(), 1.0 / 61 + 1.0 / 64, 1e-9);
  StoreQuery filtered = query;
  filtered.filter = {{"kind", "ship"}};
  EXPECT_THAT(Texts(filtered), ElementsAre("A red ship"));
  filtered.text = "?!";
  EXPECT_THAT(Texts(filtered), ElementsAre("A red ship"));
}

TEST_F(StoreTest, EqualsBruteForce) {
  constexpr int64_t kWidth = 37;
  Open(kWidth);
  const auto draw = Drawing(kWidth, 5);
  std::vector<Passage> passages;
  for (int i = 0; i < 2000; ++i) passages.push_back({absl::StrCat("p", i), Json::object(), draw()});
  Add("all", passages);
  for (int round = 0; round < 20; ++round) {
    const std::vector<float> query = draw();
    std::vector<std::pair<double, std::string>> wanted;
    for (const Passage& passage : passages) {
      double dot = 0, length = 0;
      for (int64_t k = 0; k < kWidth; ++k) {
        dot += static_cast<double>(query[k]) * passage.vector[k];
        length += static_cast<double>(passage.vector[k]) * passage.vector[k];
      }
      wanted.emplace_back(-dot / std::sqrt(length), passage.text);
    }
    std::sort(wanted.begin(), wanted.end());
    const std::vector<std::string> got = Texts({.vector = query, .limit = 10});
    ASSERT_EQ(got.size(), 10u);
    for (size_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[i], wanted[i].second);
  }
}

TEST_F(StoreTest, TheGraphFindsNearlyAllOfTheNearestAndIsKept) {
  constexpr int64_t kWidth = 24;
  Open(kWidth);
  const auto draw = Drawing(kWidth, 9);
  std::vector<Passage> passages;
  for (int i = 0; i < 4000; ++i) passages.push_back({absl::StrCat("p", i), Json::object(), draw()});
  Add("all", passages);
  std::vector<StoreQuery> queries;
  for (int i = 0; i < 50; ++i) queries.push_back({.vector = draw(), .limit = 10});
  const auto recall = [&] {
    int common = 0;
    for (StoreQuery query : queries) {
      const std::vector<std::string> exact = Texts(query);
      query.most_exact = 0;
      for (const std::string& text : Texts(query)) {
        common += std::count(exact.begin(), exact.end(), text) > 0 ? 1 : 0;
      }
    }
    return common / 500.0;
  };
  EXPECT_GE(recall(), 0.95);
  // Kept beside the store, for the next process.
  const auto file = path().string() + ".hnsw";
  const auto written = std::filesystem::last_write_time(file);
  Open(kWidth);
  EXPECT_GE(recall(), 0.95);
  EXPECT_EQ(std::filesystem::last_write_time(file), written);
  // A damaged one is made anew, and so is that of other passages.
  std::ofstream(file) << "damaged";
  Open(kWidth);
  EXPECT_GE(recall(), 0.95);
  Add("more", {{"the newest", Json::object(), queries[0].vector}});
  StoreQuery query = queries[0];
  query.most_exact = 0;
  EXPECT_EQ(Texts(query)[0], "the newest");
  // Also when they have the ids of those that went.
  std::vector<float> opposite = queries[0].vector;
  for (float& x : opposite) x = -x;
  Add("more", {{"the newest but far", Json::object(), opposite}});
  const std::vector<std::string> near = Texts(query);
  EXPECT_EQ(near.size(), 10u);
  EXPECT_EQ(std::count(near.begin(), near.end(), "the newest but far"), 0);
}

TEST_F(StoreTest, SourcesOutliveTheProcessAndAreReplaced) {
  Fill();
  Open();
  EXPECT_EQ(*store_->Count(), 4);
  auto source = store_->Find("animals");
  ASSERT_TRUE(source.ok() && source->has_value());
  EXPECT_EQ((*source)->passages, 3);
  EXPECT_TRUE((*source)->is_complete);
  EXPECT_FALSE(store_->Find("plants")->has_value());
  // One that was not finished says so, with what it has.
  const auto version = store_->Begin({.name = "animals", .stamp = "t", .digest = "e"});
  ASSERT_TRUE(version.ok()) << version.status();
  ASSERT_TRUE(store_->Append(*version, {{"A cat", Json::object(), {1, 0, 0}}}).ok());
  Open();
  source = store_->Find("animals");
  EXPECT_EQ((*source)->stamp, "t");
  EXPECT_FALSE((*source)->is_complete);
  EXPECT_EQ((*source)->passages, 1);
  EXPECT_EQ((*source)->version, *version);
  // Until it is, the older version is what is found.
  const StoreQuery query = {.vector = {1, 0, 0}, .text = "fox cat", .hybrid = true};
  EXPECT_THAT(Texts(query), ElementsAre("The red fox sleeps", "A dog's \"house\"", "Dogs and foxes",
                                        "A red ship"));
  ASSERT_TRUE(store_->Complete(*version, "u").ok());
  source = store_->Find("animals");
  EXPECT_EQ((*source)->stamp, "u");
  EXPECT_EQ((*source)->digest, "e");
  EXPECT_TRUE((*source)->is_complete);
  // Now its passages are gone, their words too.
  EXPECT_THAT(Texts(query), ElementsAre("A cat", "A red ship"));
  EXPECT_EQ(*store_->Count(), 2);
}

TEST_F(StoreTest, AVersionThatAnotherHasReplacedTakesNothing) {
  Fill();
  const Passage cat = {"A cat", Json::object(), {1, 0, 0}};
  const auto replaced = store_->Begin({.name = "animals"});
  ASSERT_TRUE(replaced.ok()) << replaced.status();
  const auto other = Store::Open(path(), "m", 3);
  ASSERT_TRUE(other.ok()) << other.status();
  const auto version = (*other)->Begin({.name = "animals"});
  ASSERT_TRUE(version.ok()) << version.status();
  EXPECT_TRUE(absl::IsUnavailable(store_->Append(*replaced, {cat})));
  EXPECT_TRUE(absl::IsUnavailable(store_->Complete(*replaced, "t")));
  ASSERT_TRUE((*other)->Append(*version, {cat}).ok());
  ASSERT_TRUE((*other)->Complete(*version, "t").ok());
  EXPECT_TRUE(absl::IsUnavailable(store_->Append(*version, {cat})));
  EXPECT_TRUE(absl::IsUnavailable(store_->Complete(*version, "t")));
  EXPECT_THAT(Texts({.vector = {1, 0, 0}}), ElementsAre("A cat", "A red ship"));
}

TEST_F(StoreTest, AChangeThatIsStoppedHasNotHappened) {
  Fill();
  const std::vector<Passage> cats(2000, {"A cat among the cats", Json::object(), {1, 0, 0}});
  const auto version = store_->Begin({.name = "animals"});
  ASSERT_TRUE(version.ok()) << version.status();
  ASSERT_TRUE(store_->Append(*version, cats).ok());
  // Whatever it is at when it is stopped, nothing of it is seen.
  for (const int last : {1, 20, 40}) {
    int looks = 0;
    const auto is_stopped = [&] { return ++looks == last; };
    EXPECT_TRUE(absl::IsCancelled(store_->Complete(*version, "t", is_stopped))) << last;
    EXPECT_EQ(looks, last);
    EXPECT_EQ(*store_->Count(), 4);
    EXPECT_EQ((*store_->Find("animals"))->passages, 2000);
  }
  const auto at_once = [] { return true; };
  EXPECT_TRUE(absl::IsCancelled(store_->Begin({.name = "animals"}, at_once).status()));
  ASSERT_TRUE(store_->Complete(*version, "t").ok());
  EXPECT_EQ(*store_->Count(), 2001);
  EXPECT_TRUE(absl::IsCancelled(store_->Remove("animals", at_once)));
  EXPECT_EQ(*store_->Count(), 2001);
  EXPECT_EQ(Texts({.vector = {1, 0, 0}, .text = "cat", .limit = 1, .hybrid = true}),
            std::vector<std::string>{"A cat among the cats"});
}

TEST_F(StoreTest, SourcesBelowAFolderAndTheirEnd) {
  Open();
  for (const char* name : {"/docs/a", "/docs/sub/b", "/docs_too/c"}) {
    Add(name, {{name, Json::object(), {1, 0, 0}}});
  }
  EXPECT_THAT(*store_->SourcesBelow("/docs"), ElementsAre("/docs/a", "/docs/sub/b"));
  ASSERT_TRUE(store_->Begin({.name = "/docs/begun"}).ok());
  EXPECT_THAT(*store_->SourcesBelow("/docs"), ElementsAre("/docs/a", "/docs/begun", "/docs/sub/b"));
  ASSERT_TRUE(store_->Remove("/docs/a").ok());
  EXPECT_THAT(Texts({.vector = {1, 0, 0}}), ElementsAre("/docs/sub/b", "/docs_too/c"));
  EXPECT_FALSE(store_->Find("/docs/a")->has_value());
}

TEST_F(StoreTest, ASearchSeesOneMoment) {
  Fill();
  EXPECT_EQ(Texts({.vector = {1, 0, 0}}).size(), 4u);
  const auto other = Store::Open(path(), "m", 3);
  ASSERT_TRUE(other.ok()) << other.status();
  int looks = 0;
  StoreQuery query = {.vector = {1, 0, 0}, .text = "fox cat", .hybrid = true, .threshold = -1};
  // While it searches, all goes and much else comes, under other ids as well.
  query.is_stopped = [&] {
    ++looks;
    EXPECT_TRUE((*other)->Remove("ships").ok());
    AddTo(**other, "animals", std::vector<Passage>(50, {"A cat", Json::object(), {0, 1, 0}}));
    return false;
  };
  EXPECT_THAT(Texts(query), ElementsAre("The red fox sleeps", "A dog's \"house\"", "Dogs and foxes",
                                        "A red ship"));
  EXPECT_EQ(looks, 1);
  query.is_stopped = nullptr;
  EXPECT_THAT(Texts(query), ElementsAre("A cat", "A cat", "A cat", "A cat", "A cat"));
}

TEST_F(StoreTest, StopsWhileAGraphIsMade) {
  Open(8);
  const auto draw = Drawing(8, 3);
  std::vector<Passage> passages;
  for (int i = 0; i < 2000; ++i) passages.push_back({"p", Json::object(), draw()});
  Add("all", passages);
  int looks = 0;
  const auto stopped = store_->Search(
      {.vector = draw(), .most_exact = 0, .is_stopped = [&looks] { return ++looks == 20; }});
  EXPECT_TRUE(absl::IsCancelled(stopped.status())) << stopped.status();
  EXPECT_EQ(looks, 20);
}

TEST_F(StoreTest, AGraphThatCannotBeKeptIsUsed) {
  Fill();
  std::filesystem::create_directories(path().string() + ".hnsw/in the way");
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(Texts({.vector = {1, 0, 0}, .most_exact = 0})[0], "The red fox sleeps");
  }
}

TEST_F(StoreTest, MetadataDoesNotHideTheText) {
  Open();
  Add("rows", {{"the passage", {{"text", 5}, {"year", 1990}}, {1, 0, 0}}});
  const auto items = store_->Search({.vector = {1, 0, 0}});
  ASSERT_TRUE(items.ok()) << items.status();
  EXPECT_EQ((*items)[0]["payload"], (Json{{"text", "the passage"}, {"year", 1990}}));
}

TEST_F(StoreTest, AnotherEncoderOfTheSameNameIsRefused) {
  Open();
  EXPECT_TRUE(store_->CheckEncoder({1, 2, 3}).ok());
  Open();
  EXPECT_TRUE(store_->CheckEncoder({2, 4, 6.01f}).ok());
  const absl::Status other = store_->CheckEncoder({1, 2, 3.3f});
  EXPECT_EQ(other.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(other), HasSubstr("the store was made with other weights of m"));
}

TEST_F(StoreTest, WhatAnotherProcessChangesIsFound) {
  Fill();
  EXPECT_EQ(Texts({.vector = {1, 0, 0}, .limit = 100}).size(), 4u);
  const auto other = Store::Open(path(), "m", 3);
  ASSERT_TRUE(other.ok()) << other.status();
  AddTo(**other, "animals", {{"A heron", Json::object(), {1, 0, 0}}});
  EXPECT_THAT(Texts({.vector = {1, 0, 0}, .limit = 100}), ElementsAre("A heron", "A red ship"));
}

TEST_F(StoreTest, OpensAndSearchesWhileAnotherProcessWrites) {
  Fill();
  ASSERT_TRUE(store_->CheckEncoder({1, 2, 3}).ok());
  store_.reset();
  sqlite3* raw = nullptr;
  ASSERT_EQ(sqlite3_open(path().c_str(), &raw), SQLITE_OK);
  const SqliteDatabase writer(raw);
  ASSERT_EQ(sqlite3_exec(raw, "BEGIN IMMEDIATE; DELETE FROM passages", nullptr, nullptr, nullptr),
            SQLITE_OK);
  Open();
  ASSERT_NE(store_, nullptr);
  EXPECT_TRUE(store_->CheckEncoder({1, 2, 3}).ok());
  EXPECT_EQ(Texts({.vector = {1, 0, 0}}).size(), 4u);
}

TEST_F(StoreTest, ManyMayMakeItAtOnce) {
  for (int round = 0; round < 20; ++round) {
    const auto path = dir_ / absl::StrCat(round, ".db");
    absl::Barrier* start = new absl::Barrier(4);
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] {
        if (start->Block()) delete start;
        const auto store = Store::Open(path, "m", 3);
        EXPECT_TRUE(store.ok()) << store.status();
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
}

TEST_F(StoreTest, AStoreWithoutTheTablesOfWhatComesGetsThem) {
  Fill();
  store_.reset();
  sqlite3* raw = nullptr;
  ASSERT_EQ(sqlite3_open(path().c_str(), &raw), SQLITE_OK);
  const SqliteDatabase older(raw);
  ASSERT_EQ(sqlite3_exec(raw, "DROP TABLE coming_passages; DROP TABLE coming_sources", nullptr,
                         nullptr, nullptr),
            SQLITE_OK);
  Open();
  Add("birds", {{"A heron", Json::object(), {1, 0, 0}}});
  EXPECT_EQ(*store_->Count(), 5);
}

TEST_F(StoreTest, AnotherModelOrFileIsRefused) {
  Fill();
  store_.reset();
  const absl::Status size = Store::Open(path(), "m", 4).status();
  EXPECT_EQ(size.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(size), HasSubstr("the store was made with the model m (dimension 3), not "
                                       "with m (dimension 4)"));
  EXPECT_THAT(Message(Store::Open(path(), "n", 3).status()), HasSubstr("not with n"));
  std::ofstream(dir_ / "text") << "this is no database, and it is long enough to be seen as none";
  EXPECT_EQ(Store::Open(dir_ / "text", "m", 3).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(Message(Store::Open(dir_ / "no/folder", "m", 3).status()),
              HasSubstr((dir_ / "no/folder").string()));
}

}  // namespace
}  // namespace flowmesh::retrieval
