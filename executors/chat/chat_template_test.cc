#include "executors/chat/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace flowmesh::chat {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<std::string> RenderWith(std::string_view source, const Json& variables) {
  auto parsed = ChatTemplate::Parse(source);
  if (!parsed.ok()) return parsed.status();
  RenderOptions options;
  options.variables = variables;
  options.now = absl::FromUnixSeconds(1762160400);
  return parsed->Render(Json::array(), Json::array(), options);
}

std::string Render(std::string_view source, const Json& variables = Json::object()) {
  const auto text = RenderWith(source, variables);
  EXPECT_TRUE(text.ok()) << source << ": " << text.status();
  return text.value_or("");
}

std::string ErrorOf(std::string_view source, const Json& variables = Json::object()) {
  const auto text = RenderWith(source, variables);
  EXPECT_FALSE(text.ok()) << source << " gives " << text.value_or("");
  return flowmesh::Message(text.status());
}

// The right sides are Jinja 3.1's, with trim_blocks and lstrip_blocks.
TEST(ChatTemplateTest, WhiteSpaceAroundTags) {
  EXPECT_EQ(Render("a\n  {% if true %}\n  b\n  {% endif %}\nc\n"), "a\n  b\nc");
  EXPECT_EQ(Render("a  {%- if true -%}  b  {%- endif %} c"), "ab c");
  EXPECT_EQ(Render("a {{- ' b ' -}} \n c"), "a b c");
  EXPECT_EQ(Render("a\n  {%+ if true %}b{% endif +%}\nc"), "a\n  b\nc");
  EXPECT_EQ(Render("a\n  {# note #}\nb{#- note -#} c"), "a\nbc");
  EXPECT_EQ(Render("a\r\nb\r"), "a\nb");
  EXPECT_EQ(Render("{% raw %}{{ x }}{% endraw %}!"), "{{ x }}!");
  EXPECT_EQ(Render("  x {% if true %}\ny{% endif %}"), "  x y");
}

TEST(ChatTemplateTest, OperatorsAndTheirPrecedence) {
  EXPECT_EQ(Render("{{ 1 + 2 * 3 }} {{ 7 // -2 }} {{ -7 % 3 }} {{ 2 ** 3 }} {{ 7 / 2 }}"),
            "7 -4 2 8 3.5");
  // `~` binds closer than `+`.
  EXPECT_EQ(Render("{{ 'a' ~ 1 + 'b' ~ 2 }} {{ [1] + [2] }} {{ 'ab' * 2 }} {{ 1 ~ none }}"),
            "a1b2 [1, 2] abab 1None");
}

TEST(ChatTemplateTest, ComparisonsLogicAndTernaries) {
  EXPECT_EQ(Render("{{ 1 < 2 < 3 }} {{ 'b' in 'abc' }} {{ 'x' not in ['y'] }} {{ not 1 == 1 }}"),
            "True True True False");
  EXPECT_EQ(Render("{{ '' or 'x' }}{{ 0 and 1 }}{{ 'a' if false else 'b' }}{{ 'c' if false }}"),
            "x0b");
  EXPECT_EQ(
      Render(
          "{{ none is none }} {{ x is defined }} {{ x is not string }} {{ 4 is divisibleby 2 }}"),
      "True False True True");
}

TEST(ChatTemplateTest, FilterBlocks) {
  EXPECT_EQ(Render("{% filter upper | replace('B', 'x') %}a{% set y = 1 %}{{ 'b' }}{% endfilter %}c"
                   "{{ y is defined }}"),
            "AxcFalse");
  EXPECT_EQ(Render("{% filter trim %}  a {% filter upper %}b{% endfilter %}  {% endfilter %}|"),
            "a B|");
  EXPECT_THAT(ErrorOf("{% filter nosuch %}x{% endfilter %}"), HasSubstr("no filter `nosuch`"));
  EXPECT_THAT(ErrorOf("{% filter %}x{% endfilter %}"), HasSubstr("the name of a filter"));
  EXPECT_THAT(ErrorOf("{% for i in [1] %}{% filter trim %}{% break %}{% endfilter %}{% endfor %}"),
              HasSubstr("break outside of a loop"));
}

TEST(ChatTemplateTest, WhatIsAddedToHtmlIsEscaped) {
  EXPECT_EQ(Render("{{ '<b>'|safe + '<i>' }} {{ '<i>' + '\"\\''|e }} {{ '&'|e|e + '&'|safe|e }}"),
            "<b>&lt;i&gt; &lt;i&gt;&#34;&#39; &amp;&");
  EXPECT_EQ(Render("{{ ' <b>'|safe|trim|upper + '<' }} {{ '<'|safe ~ '<' }} {{ 1|safe + '<' }} "
                   "{{ '<'|safe|title + '<' }} {{ ('<'|safe)|tojson }}"),
            "<B>&lt; << 1&lt; << \"<\"");
}

TEST(ChatTemplateTest, StringsAreFormatted) {
  EXPECT_EQ(Render("{{ '<{}|{}>'.format('a', 2) }} {{ '{1}{0}{{x}}{n}'.format(1, none, n=[1]) }} "
                   "{{ '{}'.format(u) }}"),
            "<a|2> None1{x}[1] ");
  EXPECT_THAT(ErrorOf("{{ '{'.format(3) }}"), HasSubstr("format: a brace that stands alone"));
  EXPECT_THAT(ErrorOf("{{ '}'.format(3) }}"), HasSubstr("format: a brace that stands alone"));
  EXPECT_THAT(ErrorOf("{{ '{1}'.format(3) }}"), HasSubstr("got {1}"));
  EXPECT_THAT(ErrorOf("{{ '{:d}'.format(3) }}"), HasSubstr("got {:d}"));
}

TEST(ChatTemplateTest, UniqueItemsAreTheFirstOfTheirKind) {
  EXPECT_EQ(
      Render(
          "{{ ['b', 'B', 'a', 'b', 1, 1.0]|unique|list }} "
          "{{ ['b', 'B', 'b']|unique(true)|list }} {{ ['b', 'B']|unique(case_sensitive=1)|list }}"),
      "['b', 'a', 1] ['b', 'B'] ['b', 'B']");
  EXPECT_EQ(Render("{{ [{'a': 'x', 'n': 1}, {'a': 'X', 'n': 2}, {'n': 3}, {'n': 4}]"
                   "|unique(attribute='a')|map(attribute='n')|list }}"),
            "[1, 3]");
}

TEST(ChatTemplateTest, MapsWithIntegersAsKeys) {
  EXPECT_EQ(Render("{% set m = {10: 'a', 2: 'b', 'x': 1} %}{{ m }} {{ m[2] }} {{ 10 in m }} "
                   "{{ '10' in m }} {{ m | tojson }} {{ m.get(3, 'n') }} {{ m.keys() | list }} "
                   "{{ m[3] is defined }}"),
            "{10: 'a', 2: 'b', 'x': 1} b True False {\"10\": \"a\", \"2\": \"b\", \"x\": 1} n "
            "[10, 2, 'x'] False");
  EXPECT_EQ(Render("{% for k, v in {10: 'a', 2: 'b'} | dictsort %}{{ k + 1 }}{{ v }} {% endfor %}"),
            "3b 11a ");
  EXPECT_EQ(Render("{{ {1: 'a'} == {1: 'a'} }} {{ {1: 'a'} == {'1': 'a'} }} "
                   "{{ {1: 'a', true: 'b'} }}"),
            "True False {1: 'b'}");
  EXPECT_THAT(ErrorOf("{{ {1.5: 2} }}"), HasSubstr("expected a string or an integer, got a float"));
  ErrorOf("{% for k in {2: 1, 'a': 2} | dictsort %}{{ k }}{% endfor %}");
}

TEST(ChatTemplateTest, SlicesCountCodePoints) {
  EXPECT_EQ(Render("{{ 'äöü'[1:] }} {{ 'äöü'[::-1] }} {{ [1,2,3][-2:] }} {{ 'äöü'|length }}"),
            "öü üöä [2, 3] 3");
  EXPECT_EQ(Render("{{ [1,2,3,4][1:3] }} {{ [1,2][5:] }} {{ 'ab'[7] is defined }}"),
            "[2, 3] [] False");
}

TEST(ChatTemplateTest, LoopsAndTheirVariables) {
  EXPECT_EQ(Render("{% for x in [1,2,3,4] if x is even %}{{ loop.index }}/{{ loop.length }}={{ x }}"
                   "{{ ',' if not loop.last }}{% else %}none{% endfor %}"),
            "1/2=2,2/2=4");
  EXPECT_EQ(Render("{% for x in [] %}{% else %}none{% endfor %}"), "none");
  EXPECT_EQ(Render("{% for k, v in {'a': 1, 'b': none}.items() %}{{ k }}{{ v }};{% endfor %}"),
            "a1;bNone;");
  EXPECT_EQ(Render("{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}"
                   "{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}"),
            "02");
  // What a loop sets is gone after it, but for a namespace.
  EXPECT_EQ(Render("{% set n = namespace(x=0) %}{% set y = 0 %}{% for i in [1,2] %}"
                   "{% set n.x = n.x + i %}{% set y = i %}{% endfor %}{{ n.x }}{{ y }}"),
            "30");
  EXPECT_EQ(Render("{% for i in [1,2] %}{{ loop.cycle('a', 'b') }}{{ loop.previtem }}{% endfor %}"),
            "ab1");
}

TEST(ChatTemplateTest, MacrosTakeNamesAndDefaults) {
  EXPECT_EQ(Render("{% macro f(a, b='x') %}[{{ a }}{{ b }}]{% endmacro %}"
                   "{{ f(1) }}{{ f(b=2, a=3) }}{{ f(4)|length }}"),
            "[1x][32]4");
  EXPECT_EQ(
      Render("{% macro f(n) %}{{ n }}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}"),
      "3210");
  EXPECT_EQ(Render("{% set t | upper %}a{{ 1 }}{% endset %}{{ t }}"), "A1");
  EXPECT_EQ(Render("{% generation %}said{% endgeneration %}"), "said");
}

TEST(ChatTemplateTest, FiltersAndMethods) {
  EXPECT_EQ(Render(R"({{ {'b': [1, 2.0, none], 'ä': '<"'} | tojson }})"),
            R"({"b": [1, 2.0, null], "ä": "<\""})");
  EXPECT_EQ(Render("{{ {'a': [1], 'b': {}} | tojson(indent=2) }}"),
            "{\n  \"a\": [\n    1\n  ],\n  \"b\": {}\n}");
  EXPECT_EQ(Render("{{ [{'r': 'a'}, {'r': 'b'}] | selectattr('r', 'equalto', 'b') | list }}"),
            "[{'r': 'b'}]");
  EXPECT_EQ(Render("{{ [{'r': 'a'}, {}] | map(attribute='r', default='-') | join('+') }}"), "a+-");
  EXPECT_EQ(Render("{{ x | default('d') }}{{ '' | default('e', true) }}{{ ' a ' | trim }}"), "dea");
  EXPECT_EQ(Render("{{ 'a-b-c'.split('-')[-1] }} {{ ' x'.lstrip() }} {{ 'abc'.startswith('ab') }}"
                   " {{ 'a b'.replace('a', 'c') }} {{ 'xxaxx'.strip('x') }}"),
            "c x True c b a");
  EXPECT_EQ(
      Render(
          "{{ {'items': 1}['items'] }} {{ {'a': 1}.get('b', 2) }} {{ {'a': 1} | items | list }}"),
      "1 2 [['a', 1]]");
  EXPECT_EQ(Render("{{ \"it's\" | list | length }} {{ [\"it's\", 'a\\n'] }}"),
            "4 [\"it's\", 'a\\n']");
  EXPECT_EQ(Render("{{ 'straße' | upper }}{{ 'ÄB c' | lower | title }}"), "STRASSEÄb C");
  EXPECT_EQ(Render("{{ \"don't x2y (a-b\" | title }}"), "Don't X2y (A-B");
}

TEST(ChatTemplateTest, DatesOfTheTimeThatIsGiven) {
  EXPECT_EQ(Render("{{ strftime_now('%Y') }}"), "2025");
}

TEST(ChatTemplateTest, ErrorsNameTheLine) {
  EXPECT_EQ(ErrorOf("a\n{{ raise_exception('no ' ~ 'roles') }}"),
            "chat template: line 2: no roles");
  EXPECT_EQ(ErrorOf("\n\n{{ message.content }}"), "chat template: line 3: `message` is undefined");
  EXPECT_EQ(ErrorOf("{{ 1 + 'a' }}"), "chat template: line 1: `+` between an integer and a string");
  EXPECT_EQ(ErrorOf("{% if x %}"),
            "chat template: line 1: expected `{% endif %}`, got the end of the template");
  EXPECT_THAT(ErrorOf("{% include 'x' %}"), HasSubstr("the tag `include` is not supported"));
  EXPECT_EQ(ErrorOf("{{ 'a }}"), "chat template: line 1: a string without its end");
  EXPECT_EQ(ErrorOf("{{ x | nosuch }}"), "chat template: line 1: there is no filter `nosuch`");
  EXPECT_EQ(ErrorOf("{{ x is nosuch }}"), "chat template: line 1: there is no test `nosuch`");
  EXPECT_THAT(ErrorOf("{{ [1 }}"), HasSubstr("line 1: expected `]`, got `}`"));
  EXPECT_THAT(ErrorOf("{{ nofunc() }}"), HasSubstr("`nofunc`: expected a function"));
  EXPECT_THAT(ErrorOf("{% break %}"), HasSubstr("break outside of a loop"));
  EXPECT_THAT(ErrorOf("{{ 1 // 0 }}"), HasSubstr("`//` by zero"));
  EXPECT_THAT(ErrorOf("\xff"), HasSubstr("not UTF-8"));
}

// A template is a stranger's: it ends with an error, soon, and within bounds of memory and stack.
TEST(ChatTemplateTest, WhatATemplateMayCostIsBounded) {
  EXPECT_THAT(
      ErrorOf("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"),
      HasSubstr("too many steps"));
  EXPECT_THAT(ErrorOf("{% set n = namespace(s='0123456789') %}{% for i in range(99) %}"
                      "{% set n.s = n.s ~ n.s %}{% endfor %}"),
              HasSubstr("too much text"));
  EXPECT_THAT(ErrorOf("{{ 'x' * 9999999999 }}"), HasSubstr("too much text"));
  EXPECT_THAT(ErrorOf("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
              HasSubstr("nests deeper than"));
  EXPECT_THAT(ErrorOf("{% set n = namespace(l=[]) %}{% for i in range(9999) %}"
                      "{% set n.l = [n.l] %}{% endfor %}"),
              HasSubstr("nested deeper than"));
  EXPECT_THAT(
      ErrorOf(absl::StrCat("{{ ", std::string(100000, '('), std::string(100000, ')'), " }}")),
      HasSubstr("nested deeper than"));
  std::string sum = "1";
  for (int i = 0; i < 10000; ++i) sum += "+1";
  EXPECT_THAT(ErrorOf(absl::StrCat("{{ ", sum, " }}")), HasSubstr("levels of operators"));
  std::string tags;
  for (int i = 0; i < 10000; ++i) tags += "{% if x %}";
  EXPECT_THAT(ErrorOf(tags), HasSubstr("tags nested deeper"));
  EXPECT_THAT(ErrorOf("{% set n = namespace() %}{% set n.me = n %}"),
              HasSubstr("can stand in a variable only"));
}

TEST(ChatTemplateTest, MessagesWithCallsAndBrokenArguments) {
  Message message;
  message.role = "assistant";
  message.tool_calls = {{"id1", "f", R"({"a": 1})"}, {"id2", "g", "{broken"}};
  const Json json = MessagesForTemplate(
      {message,
       {.role = "tool", .content = "x", .tool_calls = {}, .tool_call_id = "id1", .name = "f"}});
  EXPECT_EQ(json[0]["tool_calls"][0]["function"]["arguments"], (Json{{"a", 1}}));
  EXPECT_EQ(json[0]["tool_calls"][1]["function"]["arguments"], "{broken");
  EXPECT_EQ(json[1]["tool_call_id"], "id1");
  EXPECT_EQ(ToolsForTemplate({{"f", "does", Json{{"type", "object"}}}})[0]["function"]["name"],
            "f");
}

TEST(ChatTemplateTest, OneCallAtATimeWithItsAnswer) {
  const auto answer = [](const std::string& id) {
    return Message{.role = "tool", .content = "to " + id, .tool_call_id = id};
  };
  const std::vector<Message> messages = {
      {.role = "user", .content = "hi"},
      {.role = "assistant", .content = "well", .tool_calls = {{"a", "x", "{}"}, {"b", "y", "{}"}}},
      answer("b"),
      answer("a"),
      {.role = "assistant", .content = "", .tool_calls = {{"a", "x", "{}"}}},
      answer("a")};
  std::string told;
  for (const Message& message : OneCallAtATime(messages)) {
    EXPECT_LE(message.tool_calls.size(), 1u);
    told += message.role + ":" + message.content +
            (message.tool_calls.empty() ? "" : "!" + message.tool_calls[0].id) + " ";
  }
  EXPECT_EQ(told,
            "user:hi assistant:well!a tool:to a assistant:!b tool:to b assistant:!a tool:to a ");
}

}  // namespace
}  // namespace flowmesh::chat
