// The functions of kernels/amx_instructions.hpp, by a unit in software as strict as Intel's manual: what is an invalid
// opcode (#UD) or a general protection fault (#GP) there is one here. prove.sh puts this file in the place of that one.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace understudy {

// A tile without rows is not in use.
struct Tile {
  uint16_t bytes;  // of a row
  uint8_t rows;
  uint8_t data[16][64];
};

struct TileUnit {
  uint8_t set_up[64];  // zeros while there is none
  Tile tiles[8];
};

inline TileUnit unit;

inline void valid(bool is) {
  if (!is) asm volatile("ud2");
}

inline void permitted(bool is) {
  if (!is) asm volatile("movb (%0), %%al" ::"r"(uint64_t{1} << 63) : "rax");  // no address: its upper bits differ
}

inline Tile& used(int tile) {
  valid(unit.tiles[tile].rows != 0);
  return unit.tiles[tile];
}

inline void load_set_up(const void* from) {
  TileUnit next = {};
  memcpy(next.set_up, from, 64);
  const uint8_t palette = next.set_up[0];
  permitted(palette <= 1);
  if (palette == 0) return (void)(unit = TileUnit{});
  // A first row other than 0 is what an interrupted load leaves: of no use here, and more than this unit knows.
  for (int byte = 1; byte < 64; byte++)
    if (byte < 16 || (byte >= 32 && byte < 48) || byte >= 56) permitted(next.set_up[byte] == 0);
  for (int which = 0; which < 8; which++) {
    Tile& tile = next.tiles[which];
    memcpy(&tile.bytes, &next.set_up[16 + 2 * which], 2);
    tile.rows = next.set_up[48 + which];
    permitted(tile.bytes <= 64 && tile.rows <= 16 && (tile.bytes == 0) == (tile.rows == 0));
  }
  unit = next;
}

inline void store_set_up(void* to) { memcpy(to, unit.set_up, 64); }

template <int tile>
void zero_tile() {
  Tile& to = used(tile);
  memset(to.data, 0, sizeof to.data);
}

template <int tile>
void load_tile(const void* from, size_t stride) {
  Tile& to = used(tile);
  valid(to.bytes % 4 == 0);
  memset(to.data, 0, sizeof to.data);
  for (int row = 0; row < to.rows; row++) memcpy(to.data[row], (const uint8_t*)from + row * stride, to.bytes);
}

template <int tile>
void store_tile(void* to, size_t stride) {
  const Tile& from = used(tile);
  valid(from.bytes % 4 == 0);
  for (int row = 0; row < from.rows; row++) memcpy((uint8_t*)to + row * stride, from.data[row], from.bytes);
}

template <class Left, class Right, int sums, int left, int right>
void multiply() {
  Tile& to = used(sums);
  const Tile &l = used(left), &r = used(right);
  valid(sums != left && sums != right && left != right);
  valid(to.bytes % 4 == 0 && l.bytes % 4 == 0 && to.bytes == r.bytes && to.rows == l.rows && l.bytes / 4 == r.rows);
  for (int row = 0; row < to.rows; row++) {
    uint32_t sum[16], fours[16];  // beyond a tile's bytes all are zeros
    memcpy(sum, to.data[row], 64);
    for (int byte = 0; byte < l.bytes; byte++) {
      memcpy(fours, r.data[byte / 4], 64);
      for (int column = 0; column < 16; column++)
        sum[column] += (uint32_t)((Left)l.data[row][byte] * (Right)(fours[column] >> byte % 4 * 8));
    }
    memcpy(to.data[row], sum, 64);
  }
}

template <int... tiles>
constexpr auto multiply_ss = multiply<int8_t, int8_t, tiles...>;
template <int... tiles>
constexpr auto multiply_su = multiply<int8_t, uint8_t, tiles...>;
template <int... tiles>
constexpr auto multiply_us = multiply<uint8_t, int8_t, tiles...>;
template <int... tiles>
constexpr auto multiply_uu = multiply<uint8_t, uint8_t, tiles...>;

}  // namespace understudy

using namespace understudy;
